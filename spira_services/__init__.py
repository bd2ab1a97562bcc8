"""The services of the platform: recordings in, ground truth, answers out."""
