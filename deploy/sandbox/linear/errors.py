"""Linear's refusals in the format of its GraphQL errors."""

from graphql import GraphQLError


def refusal(message: str, *, code: str, kind: str, status: int, presentable: str) -> GraphQLError:
    return GraphQLError(
        message,
        extensions={
            "type": kind,
            "code": code,
            "statusCode": status,
            "userError": True,
            "userPresentableMessage": presentable,
        },
    )


def conflict(entity: str, taken: str) -> GraphQLError:
    """Return the error for a client-given id that exists. The real service sends it with HTTP 200 and `data: null`."""
    return _input_error(f"conflict on insert of {entity}", f"Entity {entity} with id {taken} already exists.")


def not_found(entity: str) -> GraphQLError:
    return _input_error(f"Entity not found: {entity}", f"Could not find referenced {entity}.")


def invalid(presentable: str) -> GraphQLError:
    return refusal(
        "Argument Validation Error", code="INVALID_INPUT", kind="invalid input", status=400, presentable=presentable
    )


def forbidden(scope: str) -> GraphQLError:
    return refusal(
        f"Invalid scope: `{scope}` required",
        code="FORBIDDEN",
        kind="forbidden",
        status=403,
        presentable="You don't have the scope this needs.",
    )


def rate_limited() -> GraphQLError:
    return refusal(
        "Rate limit exceeded", code="RATELIMITED", kind="ratelimited", status=429, presentable="Try again later."
    )


def unauthenticated() -> GraphQLError:
    return refusal(
        "Authentication required, not authenticated",
        code="AUTHENTICATION_ERROR",
        kind="authentication error",
        status=401,
        presentable="You need to authenticate to access this operation.",
    )


def _input_error(message: str, presentable: str) -> GraphQLError:
    return refusal(message, code="INPUT_ERROR", kind="invalid input", status=400, presentable=presentable)
