"""What people are told of connected accounts and do about them: health, scopes, invitations, the connect flow."""
