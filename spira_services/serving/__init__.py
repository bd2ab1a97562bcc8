"""Answers out: inferences that are asked for, the queue they wait in, and who answers them."""
