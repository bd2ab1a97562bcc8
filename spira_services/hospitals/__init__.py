"""What hospitals have of the participants, read by FHIR, HL7 v2 or CSV into the same rows.

* ``rows``      what a source says, made into facts with a unit and an instant, or held back
* ``watch``     what a source looks like over time, and alerts where that changes
* ``reading``   what every connector is given and gives back
* ``fhir``, ``hl7``, ``drops``   the connectors
* ``sync``      one synchronisation: read, decide, compare, hand on what is new
* ``evidence``  what a fact says of a label
* ``kept``      what is stored: facts, and what a sync leaves for the next
* ``sources``   the configuration file: which hospitals, and how each is read

The hospital number of a participant is asked with and compared, and never handed on: facts, alerts
and profiles know people by their pseudonym.
"""
