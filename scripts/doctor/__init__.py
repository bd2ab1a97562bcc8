"""What is wrong with the platform on this machine, and what to do about it: ``make doctor``.

``checks`` runs on the host, with the standard library only; ``inside`` is the program that looks
from the network of the steps.
"""
