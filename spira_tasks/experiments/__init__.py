"""Experiments: many trainings that were declared beforehand, and one comparison of them.

``declaration`` reads the file, ``trials`` says which runs are missing and brings them to their
results, ``search`` proposes the points of a search, ``comparison`` compares what came out.
``stages`` are the three steps of an experiment in Airflow.
"""
