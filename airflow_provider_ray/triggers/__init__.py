"""Triggers: the part of operators and sensors that waits in the triggerer."""
