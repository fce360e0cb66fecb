"""What the catalogue can do, one function a capability."""
