"""Stages that act on the services; each has the form of those in ``spira_tasks.stages``."""
