"""A payment provider to develop and test against: it speaks Razorpay's protocol and keeps a ledger of its own.

Nothing under `/v1/` is ours: it answers as https://razorpay.com/docs/api describes. `/control/` is the simulator's
alone.
"""
