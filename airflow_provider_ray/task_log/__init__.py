"""The driver log on its way into the task log."""
