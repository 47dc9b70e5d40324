"""Is every sentence of a reply supported by what the policy was given (Kimi K2 section 3.2.1)?"""
