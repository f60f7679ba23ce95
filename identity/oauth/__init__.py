"""OAuth and OpenID Connect as protocols: requests, answers, discovery, keys and assertions."""
