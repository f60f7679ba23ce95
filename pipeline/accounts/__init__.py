"""Connected accounts as people see and handle them: health, scopes, invitations, the connect flow."""
