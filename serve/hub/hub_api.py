"""The Hugging Face Hub, as far as this room needs it, and its errors in one line each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx2  # what huggingface_hub 2 speaks HTTP with; here for its exceptions
import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from actors.errors import UserError, printable


def check_repo_id(repo_id: str) -> None:
    """Make sure of the form user/name.

    Raises:
        UserError: it is not of that form.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is no name of a repository: {_line(error)}") from error
    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} is no name of a repository: give the user too, as in user/{repo_id}")


def check_access(repo_id: str, private: bool, repo_type: str = "model") -> None:
    """Ask the Hub whose token this is, and of the repository: better now than after the episodes are flown.

    Raises:
        UserError: there is no token or the Hub does not know it, or a repository that should be private is public.
        OSError: the Hub cannot be reached.
    """
    with hub_errors(repo_id):
        api = HfApi()
        api.whoami()
        if private:
            with contextlib.suppress(RepositoryNotFoundError):
                if not api.repo_info(repo_id, repo_type=repo_type).private:
                    raise UserError(
                        f"{repo_id} exists and is public, and --private is for new repositories: "
                        f"make it private at {api.endpoint}/{repo_id}/settings first"
                    )


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool,
    revision: str | None,
    message: str,
    names: tuple[str, ...],
    repo_type: str = "model",
    only: tuple[str, ...] | None = None,
) -> str:
    """Commit the contents of ``folder`` to a repository, which is created if there is none.

    Nothing special is done to resume: ``upload_folder`` asks which contents the Hub has already, by their hashes
    (chunks of them where hf_xet is installed), sends the others with retries, and makes one commit when all have
    arrived. Run again after a loss, it sends what is missing; a package is far below the size, and the number of files,
    at which it would make several commits.

    Args:
        folder: everything in it is uploaded.
        repo_id: user/name.
        private: a new repository is private; an existing one stays what it is.
        revision: a branch, created if there is none; None: main.
        message: of the commit.
        names: patterns of the files that are deleted there if ``folder`` has none of them any more.
        repo_type: model or dataset.
        only: patterns of the files that are uploaded; None: all.

    Returns:
        The address of the repository.

    Raises:
        UserError: the Hub refused.
        OSError: it could not be reached, or went away.
    """
    with hub_errors(repo_id):
        api = HfApi()
        url = api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            repo_type=repo_type,
            allow_patterns=None if only is None else [*only],
            revision=revision,
            commit_message=message,
            delete_patterns=list(names),
        )
        return f"{url}/tree/{revision}" if revision else str(url)


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Errors of the Hub as one line that says what to do: UserError for what was asked, OSError for what happened."""
    try:
        yield
    except UserError:
        raise
    except (OSError, httpx2.HTTPError, RuntimeError, ValueError) as error:  # hf_xet's failures are RuntimeErrors
        raise _told(error, repo_id) from error


def _told(error: Exception, repo_id: str) -> Exception:
    endpoint = huggingface_hub.constants.ENDPOINT
    chain = list(_chain(error))
    answer = next((cause for cause in chain if isinstance(cause, HfHubHTTPError)), None)
    if answer is not None:
        return _answered(answer, repo_id, endpoint)
    for cause in chain:
        if isinstance(cause, LocalTokenNotFoundError):
            return UserError(
                "no access token: make one that may write at "
                f"{endpoint}/settings/tokens, then `hf auth login` or set HF_TOKEN"
            )
        if isinstance(cause, HFValidationError):
            return UserError(_line(cause))
        if isinstance(cause, OfflineModeIsEnabled):
            return UserError("HF_HUB_OFFLINE is set: the Hub is not asked; unset it")
        if isinstance(cause, httpx2.HTTPError):
            words = _line(cause) or type(cause).__name__
            return OSError(f"the connection to {endpoint} failed ({words}): try again")
    return error if isinstance(error, OSError) and error.errno else OSError(f"{endpoint}: {_line(error)}")


def _answered(error: HfHubHTTPError, repo_id: str, endpoint: str) -> Exception:
    status, said = error.response.status_code, _short(error.server_message or "")
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{repo_id} has no such revision: see {endpoint}/{repo_id}")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return UserError(f"no repository {repo_id} that you may read: check its name; a private one needs a token")
    if status == 401:
        return UserError(
            "the Hub does not accept the access token (401): make a new one at "
            f"{endpoint}/settings/tokens, then `hf auth login` or set HF_TOKEN"
        )
    if status == 403:
        return UserError(
            f"the access token may not write to {repo_id} (403{said and f': {said}'}): "
            "use one with write permission, or a repository of your own"
        )
    if status == 429 or status >= 500:
        return OSError(f"the Hub cannot serve us now ({status}{said and f': {said}'}): try again later")
    return UserError(f"the Hub refused ({status}{said and f': {said}'})")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _line(error: BaseException) -> str:
    return _short(str(error))


def _short(text: str) -> str:
    """One printable line, without the token even if a server should echo it."""
    token = huggingface_hub.get_token()
    return printable(" ".join((text.replace(token, "…") if token else text).split()))[:200]
