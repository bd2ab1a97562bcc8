"""What the platform answers for: who decided what, whose data are where, and what was erased."""
