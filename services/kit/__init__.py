"""What every service shares: one file for each thing, no rules of any service's domain."""
