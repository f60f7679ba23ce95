"""The console's users: roles, sign-in and sessions."""
