"""What is wrong with the platform on this machine, and what to do about it: ``make doctor``.

``settings``, ``findings`` and ``command`` are the tools; ``engines``, ``host`` and ``stack`` the
checks; ``inside`` is the program that looks from where a step stands.  Standard library only.
"""
