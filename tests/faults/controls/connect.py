"""What each guard of a connect is for: without it, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

CONNECT, TEST = "identity/connect/flow.py", "tests/identity/test_connect.py"
CONFIRMATION, CONFIRMED = "identity/connect/confirmation.py", "tests/identity/test_confirmed_connects.py"
CHANGES = "tests/ledger/test_connection_changes.py"

CONTROLS = (
    Control(
        name="the browser that went on from the link",
        file=CONNECT,
        guard="if not session.is_of(browser):",
        without="if False:",
        test=f"{TEST}::test_a_callback_in_another_browser and sqlite",
    ),
    Control(
        name="the account that is awaited",
        file="identity/consent_ledger.py",
        guard="if awaited is not None and consent.external_id not in awaited.ids:",
        without="if False:",
        test=f"{TEST}::test_a_reconnect_by_another_account and sqlite",
    ),
    Control(
        name="what one client won is stored under no other",
        file="identity/consent_ledger.py",
        guard="if get_connection(connection, consent.key.connection).client_id != consent.client_id:",
        without="if False:",
        test=f"{CHANGES}::test_an_account_that_has_won_nothing and sqlite",
    ),
    Control(
        name="a client is not corrected while a consent of it is stored",
        file="identity/consent_ledger.py",
        guard="lock_connection(connection, consent.key.connection)  # who corrects its client waits, and finds the "
        "account",
        without="pass",
        test=f"{CHANGES}::test_a_consent_beside_a_correction",
    ),
    Control(
        name="what one client won is ended as that one",
        file="identity/withdrawals/withdrawer.py",
        guard="owner = replace(owner, client_id=claimed.client_id)",
        without="pass",
        test="tests/identity/test_leftovers.py::test_what_was_won_for_the_client and sqlite",
    ),
    Control(
        name="of two workspaces that are taken back at once one is the last",
        file="pipeline/desk/tenants.py",
        guard="lock_connection(connection, connection_id)  # of a tenant's last two, one is found to be the last",
        without="pass",
        test=f"{CHANGES}::test_of_two_workspaces",
    ),
    Control(
        name="a workspace is everybody's who has consented there",
        file="identity/installations.py",
        guard="acting |= columns.state != AccountState.PENDING",
        without="pass",
        test=f"{CHANGES}::test_a_workspace_is_taken_back and sqlite",
    ),
    Control(
        name="the signature of a link",
        file="identity/connect/links.py",
        guard='if not dot or not text.isascii() or not signer.verifies(_signed(session), signature + "=" * '
        "(-len(signature) % 4)):",
        without="if not dot:",
        test=f"{TEST}::test_a_link_without_our_signature and sqlite",
    ),
    Control(
        name="a login is one person's",
        file="identity/connect/storing.py",
        guard="if link_alias(",
        without="if True or link_alias(",
        test=f"{TEST}::test_somebody_elses_provider_account and sqlite",
    ),
    Control(
        name="registered return targets",
        file="identity/connect/beginning.py",
        guard="if return_to is not None and not may_return(connection, key.tenant, return_to):",
        without="if False:",
        test=f"{TEST}::test_the_last_page_leads_only and sqlite",
    ),
    Control(
        name="a callback is one",
        file="identity/connect/callback.py",
        guard="return self.store.write(lambda connection: use_up(connection, arrival.session.id, now=arrival.at))",
        without="return True",
        test=f"{TEST}::test_a_callback_works_once and sqlite",
    ),
    Control(
        name="a form comes from our own page",
        file="webhooks/connect.py",
        guard="if not from_own_page(settings.base_url):",
        without="if False:",
        test="tests/webhooks/test_connect.py::test_no_other_site_can_send",
    ),
    Control(
        name="the first browser that goes on",
        file="identity/connect/sessions.py",
        guard="first = update(connect_sessions).where(which, columns.browser_hash.is_(None))",
        without="first = update(connect_sessions).where(which)",
        test=f"{TEST}::test_a_link_belongs_to_the_first_browser and sqlite",
    ),
    Control(
        name="the address of the state's own connection",
        file=CONNECT,
        guard="if owner.id != connection_id:",
        without="if False:",
        test=f"{TEST}::test_a_callback_to_another_connections_address and sqlite",
    ),
    Control(
        name="the issuer of an answer",
        file=CONNECT,
        guard="check_issuer(owner, profile, params)",
        without="pass",
        test=f"{TEST}::test_a_connection_whose_issuer_nobody_knows and sqlite",
    ),
    Control(
        name="an answer of another issuer",
        file="identity/connect/callback.py",
        guard="if expected is not None and sent is not None and sent != expected:",
        without="if False:",
        test=f"{TEST}::test_an_answer_of_another_issuer and sqlite",
    ),
    Control(
        name="the account that is awaited, where nobody says whose it is",
        file="identity/consent_ledger.py",
        guard="if consent.credential is Credential.AUTHORIZATION_CODE and not consent.any_account:",
        without="if consent.external_id is not None and not consent.any_account:",
        test=f"{TEST}::test_where_nobody_says_whose_it_is and sqlite",
    ),
    Control(
        name="a user of another server is nobody here",
        file="identity/people.py",
        guard="if other.people == name and _server(other) != _server(owner) and _meet(owner, other):",
        without="if False:",
        test="tests/deploy/test_connections.py::test_nobodys_users_are_taken_for_other_people",
    ),
    Control(
        name="a name for people that means who signs in here",
        file="identity/people.py",
        guard="if name == SIGNED_IN_HERE:",
        without="if False:",
        test="tests/deploy/test_connections.py::test_nobodys_users_are_taken_for_other_people",
    ),
    Control(
        name="what a refused connect had won waits for the ledger",
        file="identity/connect/refusals.py",
        guard="self._leave(refusal.leftover, now=now, then=write)",
        without="self.store.write(write)",
        test="tests/identity/test_leftovers.py::test_what_a_provider_never_ends_is_given_up and sqlite",
    ),
    Control(
        name="only the link's own person is connected by it",
        file=CONFIRMATION,
        guard="if principal != found.key.principal:",
        without="if False:",
        test=f"{CONFIRMED}::test_who_follows_a_link_of_somebody_else and sqlite",
    ),
    Control(
        name="what the browser brought to the product",
        file=CONFIRMATION,
        guard="if not found.is_code(code):",
        without="if False:",
        test=f"{CONFIRMED}::test_another_code_ends_it and sqlite",
    ),
    Control(
        name="a link is confirmed by its own tenant",
        file=CONFIRMATION,
        guard="if found is None or found.key.tenant != tenant:",
        without="if found is None:",
        test=f"{CONFIRMED}::test_another_tenant_has_no_such_link and sqlite",
    ),
    Control(
        name="a confirmation has its time",
        file=CONFIRMATION,
        guard="if now >= found.expires_at:",
        without="if False:",
        test=f"{CONFIRMED}::test_a_confirmation_that_comes_too_late and sqlite",
    ),
    Control(
        name="what is ending is not taken back",
        file=CONFIRMATION,
        guard="if not take_back(connection, session.started, until=session.expires_at):",
        without="if take_back(connection, session.started, until=session.expires_at) and False:",
        test=f"{CONFIRMED}::test_a_refusal_that_comes_first and sqlite",
    ),
    Control(
        name="what a refused confirmation was about ends at once",
        file="identity/connect/refusals.py",
        guard="end_now(connection, session.started)",
        without="pass",
        test=f"{CONFIRMED}::test_who_follows_a_link_of_somebody_else and sqlite",
    ),
    Control(
        name="a connection that demands confirmations has them of links that are out too",
        file="identity/connect/arrival.py",
        guard="return self.session.confirm or self.owner.confirms",
        without="return self.session.confirm",
        test=f"{CONFIRMED}::test_a_connection_demands_it_of_every_link and sqlite",
    ),
    Control(
        name="a connect that waits for its confirmation is under way",
        file="identity/connect/sessions.py",
        guard="return ((_OPEN | used | awaiting) & in_time) | (used & (columns.finished_at > now - FINISHED_WITHIN))",
        without="return ((_OPEN | used) & in_time) | (used & (columns.finished_at > now - FINISHED_WITHIN))",
        test=f"{CONFIRMED}::test_one_that_waits_is_under_way and sqlite",
    ),
    Control(
        name="the challenge is the verifier's hash",
        file="identity/oauth.py",
        guard="code_challenge=create_s256_code_challenge(verifier),  # type: ignore[no-untyped-call]",
        without="code_challenge=verifier,",
        test="tests/identity/test_oauth.py::test_an_authorization_url_carries_pkce",
    ),
    Control(
        name="a code goes with its verifier",
        file="identity/oauth.py",
        guard='return _form(client, "authorization_code", code=code, redirect_uri=redirect_uri, '
        "code_verifier=verifier)",
        without='return _form(client, "authorization_code", code=code, redirect_uri=redirect_uri)',
        test="tests/identity/test_oauth.py::test_a_code_is_exchanged_as_a_code",
    ),
    Control(
        name="no link is in the web server's log",
        file="deploy/logs.py",
        guard='"level": "INFO" if level == "DEBUG" else level,',
        without='"level": level,',
        test="tests/deploy/test_logs.py::test_requests_and_messages_of_libraries",
    ),
    Control(
        name="nor is a request that cannot be read",
        file="deploy/logs.py",
        guard='"filters": ["unquoted"],',
        without='"filters": [],',
        test="tests/deploy/test_logs.py::test_a_request_that_cannot_be_read",
    ),
)
