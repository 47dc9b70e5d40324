"""What a recipe will do to the machines, before any of them is started."""
