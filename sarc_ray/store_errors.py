"""What the errors of stores and of their clients mean, each of which has its own family of them."""

from __future__ import annotations

from sarc_ray.errors import CredentialsError, StorageError

# Where a store says that it is the credentials: S3's codes, and the errors of the clients of S3, Google and Azure.
_CREDENTIAL_CODES = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)
_CREDENTIAL_ERRORS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"),
        *("UnauthorizedSSOTokenError", "SSOTokenLoadError"),
        *("RefreshError", "DefaultCredentialsError", "ClientAuthenticationError"),
    }
)
_HTTP_UNAUTHORIZED = 401
# Clients of stores; errors of some of them are no OSError.
_CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure"})


def trouble(uri: str, what: str, error: BaseException) -> StorageError:
    """What a store's error means to a user.

    Args:
        uri: what was asked for.
        what: what was to happen to it: ``read``, ``written``, ...
        error: of the store's client.
    """
    if isinstance(error, CredentialsError):
        return error
    if refuses_credentials(error):
        return CredentialsError(
            f"{uri}: cannot be {what}, because the credentials are missing, wrong or expired ({error}); renew them "
            "(for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile or role; on "
            "every node), and run the same command again: what is finished is kept"
        )
    remedy = "check the store's address, its credentials (have they expired?) and permissions"
    if what == "written":
        remedy = "check permissions and free space, and run the same command again: what is finished is kept"
    return StorageError(f"{uri}: cannot be {what} ({error}); {remedy}")


def is_of_a_store(error: BaseException) -> bool:
    """True for an error of a store, a disk or a client of one; false for an error of the program."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS


def refuses_credentials(error: BaseException) -> bool:
    """True where a store, or its client, says that the credentials are missing, wrong or expired.

    A refusal of one object or bucket to somebody who is known (403, AccessDenied) is none: others may be readable.
    """
    for found in (error, error.__cause__):
        response = getattr(found, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code") in _CREDENTIAL_CODES:
            return True
        if type(found).__name__ in _CREDENTIAL_ERRORS:
            return True
        # What comes from another process has lost the client's own error. A file's path is none of the store's words.
        if isinstance(found, PermissionError) and "expired" in (found.strerror or str(found)).lower():
            return True
        if _HTTP_UNAUTHORIZED in (getattr(found, "code", None), getattr(found, "status", None)):
            return True
    return False
