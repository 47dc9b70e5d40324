"""Small pure functions with cases, the material of the repair tasks."""
