"""Each module measures one thing, side by side with what a user would take instead, in one run."""
