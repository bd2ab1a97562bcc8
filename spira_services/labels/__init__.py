"""Ground truth: who labelled what, how far they agree, and which label holds."""
