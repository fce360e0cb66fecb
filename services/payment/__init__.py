"""Payments: orders at a provider, what it reports of them, and money that goes back."""
