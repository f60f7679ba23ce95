"""Web API methods. Slack always answers 200, and reports the outcome in `ok` and `error`."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.slack.store import Message, Store, Workspace
from deploy.sandbox.surface import entry, touched


class Refused(Exception):
    def __init__(self, error: str, **details: str) -> None:
        super().__init__(error)
        self.error = error
        self.details = details


def methods(slack: dict[str, Any], store: Store) -> Blueprint:
    routes = Blueprint("methods", __name__, url_prefix="/api")

    def caller(scope: str | None) -> Workspace:
        """Return the calling bot's workspace. Raise Refused."""
        token = _token()
        if not token:
            raise Refused("not_authed")
        entry().token_fingerprint = fingerprint(token)
        held = store.holder(token)
        if held is None:
            raise Refused("invalid_auth")
        workspace, alive = held
        entry().token_kind, entry().actor, entry().tenant = "bot", workspace.bot_user_id, workspace.name
        if not alive:
            raise Refused("token_revoked")
        if scope and scope not in workspace.scopes:
            raise Refused("missing_scope", needed=scope, provided=",".join(sorted(workspace.scopes)))
        return workspace

    @routes.post("/chat.postMessage")
    def chat_post_message() -> Response:
        workspace = caller("chat:write")
        fields = _fields()
        channel, text, blocks = _message_in(workspace, fields)
        message = store.post(
            workspace,
            channel,
            text=text,
            blocks=blocks,
            thread=fields.get("thread_ts"),
            attempt=entry().attempt,
        )
        touched(f"{workspace.name}/{message.channel_name}:{message.ts}")
        return jsonify(ok=True, channel=channel, ts=message.ts, message=_shown(workspace, message))

    @routes.post("/chat.update")
    def chat_update() -> Response:
        workspace = caller("chat:write")
        fields = _fields()
        channel, text, blocks = _message_in(workspace, fields)
        message = store.update(workspace, channel, str(fields.get("ts", "")), text=text, blocks=blocks)
        if message is None:
            raise Refused("message_not_found")
        touched(f"{workspace.name}/{message.channel_name}:{message.ts}")
        shown = _shown(workspace, message)
        return jsonify(ok=True, channel=channel, ts=message.ts, text=message.text, message=shown)

    @routes.route("/auth.test", methods=["GET", "POST"])
    def auth_test() -> Response:
        workspace = caller(None)
        return jsonify(
            ok=True,
            url=f"{slack['url']}/",
            team=workspace.name,
            user="aswhom",
            team_id=workspace.team_id,
            user_id=workspace.bot_user_id,
            bot_id=workspace.bot_id,
            is_enterprise_install=False,
        )

    @routes.route("/auth.revoke", methods=["GET", "POST"])
    def auth_revoke() -> Response:
        workspace = caller(None)
        if str(_fields().get("test", "")).lower() in ("1", "true"):
            return jsonify(ok=True, revoked=False)
        store.revoke(_token())
        touched(workspace.name)
        return jsonify(ok=True, revoked=True)

    @routes.route("/conversations.list", methods=["GET", "POST"])
    def conversations_list() -> Response:
        workspace = caller("channels:read")
        channels = [_channel(workspace, *channel) for channel in workspace.channels.items()]
        return jsonify(ok=True, channels=channels, response_metadata={"next_cursor": ""})

    @routes.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        return jsonify(ok=False, error=error.error, **error.details)

    return routes


def _token() -> str:
    header = request.headers.get("Authorization", "")
    if header.startswith("Bearer "):
        return header.removeprefix("Bearer ").strip()
    return str(request.form.get("token", ""))


def _fields() -> dict[str, Any]:
    body = request.get_json(silent=True)
    return body if isinstance(body, dict) else {**request.args, **request.form}


def _message_in(workspace: Workspace, fields: dict[str, Any]) -> tuple[str, str, list[Any]]:
    """Return the channel, text and blocks of a call."""
    channel = workspace.channel(str(fields.get("channel", "")))
    if channel is None:
        raise Refused("channel_not_found")
    text, blocks = fields.get("text") or "", fields.get("blocks") or []
    if not text and not blocks:
        raise Refused("no_text")
    return channel, str(text), blocks if isinstance(blocks, list) else [blocks]


def _shown(workspace: Workspace, message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "type": "message",
        "user": message.user,
        "bot_id": workspace.bot_id,
        "team": workspace.team_id,
        "text": message.text,
        "ts": message.ts,
    }
    if message.blocks:
        shown["blocks"] = message.blocks
    if message.thread_ts:
        shown["thread_ts"] = message.thread_ts
    return shown


def _channel(workspace: Workspace, channel_id: str, name: str) -> dict[str, Any]:
    return {
        "id": channel_id,
        "name": name,
        "name_normalized": name,
        "created": 1_449_252_889,
        "creator": workspace.bot_user_id,
        "unlinked": 0,
        "num_members": 4,
        "is_channel": True,
        "is_member": True,
        "is_general": name == "general",
        **dict.fromkeys(("is_archived", "is_ext_shared", "is_group", "is_im", "is_mpim"), False),
        **dict.fromkeys(("is_org_shared", "is_pending_ext_shared", "is_private", "is_shared"), False),
        "pending_shared": [],
        "previous_names": [],
        "purpose": {"creator": "", "last_set": 0, "value": ""},
        "topic": {"creator": "", "last_set": 0, "value": ""},
    }
