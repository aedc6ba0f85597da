"""Everything that talks to the Hugging Face Hub: names become commits, headers are read, files are fetched.

`resolve` turns an id and a revision into a `HubRepo` pinned to one commit, so that what is read piece by piece is of
one version. Without network, or where the Hub cannot be reached, the cache of huggingface_hub takes its place; its
layout (`refs/<revision>` names a commit, `snapshots/<commit>` holds its files) is documented:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import difflib
import glob
import json
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reward_hub.errors import (
    CacheError,
    CheckpointError,
    RewardHubError,
    ServerError,
    ServerTimeoutError,
    UnknownModelError,
)

logger = logging.getLogger(__name__)

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
HOW_TO_LOG_IN = "log in with `hf auth login`, pass token= or set HF_TOKEN"


@dataclass(frozen=True)
class _Connection:
    """How the Hub is reached; kept out of every repr because of the token."""

    endpoint: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | None = None

    @property
    def url(self) -> str:
        """The endpoint for messages, without the user and password that a mirror's address may hold."""
        from huggingface_hub import constants

        parts = urlsplit(self.endpoint or constants.ENDPOINT)
        scheme = f"{parts.scheme}://" if parts.scheme else ""
        return f"{scheme}{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

    @property
    def cache(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache_dir or constants.HF_HUB_CACHE).expanduser().resolve()

    def storage(self, repo_id: str) -> Path:
        """The folder of a repository in the cache."""
        from huggingface_hub.file_download import repo_folder_name

        return self.cache / repo_folder_name(repo_id=repo_id, repo_type="model")

    def how_to_fetch(self, repo_id: str, revision: str | None, *names: str) -> str:
        words = ["hf download", repo_id, *names]
        if revision is not None:
            words += ["--revision", revision]
        if self.cache_dir is not None:
            words += ["--cache-dir", self.cache_dir]
        return f"fetch it with `{' '.join(words)}` where there is a network"

    def text(self, error: BaseException) -> str:
        """The type and the first line of an error, should a server repeat the token without it."""
        words = str(error).strip().partition("\n")[0][:300]
        for secret in (self.token, os.environ.get("HF_TOKEN"), urlsplit(self.endpoint or "").password):
            if isinstance(secret, str) and secret:
                words = words.replace(secret, "***")
        return f"{type(error).__name__}: {words}" if words else type(error).__name__


@dataclass(frozen=True)
class HubRepo:
    """A repository at one commit. `files` are all of its files, sorted; offline those that the cache holds."""

    id: str
    revision: str
    files: tuple[str, ...]
    offline: bool
    _asked: str = field(default="main", repr=False, compare=False)
    _connection: _Connection = field(default_factory=_Connection, repr=False, compare=False)

    def download(self, names: Sequence[str]) -> Path:
        """Fetch exactly these files, as far as the cache does not hold them, and return the snapshot folder.

        Raises:
            CheckpointError: the repository has no file of such a name, or the cache has none and we are offline.
            UnknownModelError: the repository is gated, or was taken away.
            ServerError: the Hub could not be reached or broke off.
            CacheError: the cache cannot be written.
        """
        for name in names:
            self._check_name(name)
        folder = self._snapshot
        missing = [name for name in dict.fromkeys(names) if not (folder / name).is_file()]
        if missing:
            self._fetch(missing)
        if not self.offline:
            self._remember()
        return folder

    def safetensors_header(self, name: str) -> dict[str, Any]:
        """The header of a safetensors file: tensor name -> {"dtype", "shape", "data_offsets"}, without its metadata.

        Of a file that is not in the cache only the first 100 kB are fetched, and the rest of a longer header.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, SafetensorsParsingError

        self._check_name(name)
        path = self._snapshot / name
        if path.is_file():
            return read_safetensors_header(path)
        api = HfApi(endpoint=self._connection.endpoint, token=self._connection.token)
        try:
            header = api.parse_safetensors_file_metadata(self.id, name, revision=self.revision)
        except SafetensorsParsingError as error:
            raise _not_safetensors(f"{name} of {self.id}", str(error).rstrip(".")) from error
        except hub_errors() as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code == 416:
                raise _not_safetensors(f"{name} of {self.id}", "it is empty") from error
            raise _named(error, self.id, self._asked, self._connection) from error
        return {
            tensor: {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": list(info.data_offsets)}
            for tensor, info in header.tensors.items()
        }

    @property
    def _snapshot(self) -> Path:
        return self._connection.storage(self.id) / "snapshots" / self.revision

    def _check_name(self, name: str) -> None:
        if name in self.files:
            return
        if self.offline:
            raise CheckpointError(
                f"{name} of {self.id} is not in the cache at {self._connection.cache}, and the Hub is not in reach: "
                f"{self._connection.how_to_fetch(self.id, self.revision, name)}."
            )
        raise CheckpointError(f"{self.id} has no file {name!r} at revision {self._asked!r} ({self.revision[:8]}).")

    def _fetch(self, names: Sequence[str]) -> None:
        from huggingface_hub import snapshot_download

        try:
            snapshot_download(
                self.id,
                revision=self.revision,
                allow_patterns=[glob.escape(name) for name in names],
                cache_dir=self._connection.cache,
                token=self._connection.token,
                endpoint=self._connection.endpoint,
            )
        except hub_errors() as error:
            raise _named(error, self.id, self._asked, self._connection) from error
        # Where the Hub fails half-way, snapshot_download may return the folder as it stands.
        lost = [name for name in names if not (self._snapshot / name).is_file()]
        if lost:
            raise ServerError(
                f"{self._connection.url} did not deliver {', '.join(lost)} of {self.id}. Load again to fetch the rest.",
                retryable=True,
            )

    def _remember(self) -> None:
        """Write which commit the revision means, so that it is found offline: a download by commit does not."""
        ref = _ref(self._connection.storage(self.id), self._asked)
        if ref is None or self.revision.startswith(self._asked):
            return
        try:
            if ref.is_file() and ref.read_text() == self.revision:
                return
            ref.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=ref.parent, prefix=".")
            with os.fdopen(handle, "w") as file:
                file.write(self.revision)
            os.replace(temporary, ref)
        except OSError as error:
            # A read-only cache, shared by a group: the files are all there, so loading goes on.
            logger.debug("cannot write the revision of %s to the cache: %s", self.id, error)


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file on disk: tensor name -> {"dtype", "shape", "data_offsets"}."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            size_bytes = int.from_bytes(prefix, "little")
            text = file.read(size_bytes) if size_bytes <= MAX_HEADER_BYTES else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if prefix == b"version ":
        raise CheckpointError(f"{path} is a git-lfs pointer and not the weights: run `git lfs pull` in its folder.")
    if len(prefix) < 8 or not text or len(text) < size_bytes:
        raise _not_safetensors(str(path), f"it is cut off, or announces an impossible header of {size_bytes} bytes")
    try:
        header = json.loads(text)
    except ValueError as error:
        raise _not_safetensors(str(path), "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _not_safetensors(str(path), "its header is not a JSON object")
    header.pop("__metadata__", None)
    return header


def resolve(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> HubRepo:
    """Find a repository at a branch, tag or commit (by default `main`), at the commit which that is now.

    One request, none offline. Where the Hub cannot be reached or is overloaded, the cached commit is used and said in
    a warning.

    Raises:
        UnknownModelError: there is no such repository or revision, none in the cache, or no right to read it.
        ServerError: the Hub cannot be reached and the cache does not hold the revision; `.retryable`.
    """
    from huggingface_hub import HfApi, constants

    _check_id(repo_id)
    connection = _Connection(
        endpoint=(os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None,
        token=_checked_token(token),
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
    )
    if local_files_only or _is_offline():
        cached = _from_cache(repo_id, revision, connection)
        if cached is None:
            raise _not_cached(repo_id, revision, connection, local_files_only=local_files_only)
        return cached

    api = HfApi(endpoint=connection.endpoint, token=connection.token)
    try:
        info = api.model_info(repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except hub_errors() as error:
        failure = _named(error, repo_id, revision, connection)
        cached = _from_cache(repo_id, revision, connection)
        if cached is None:
            raise failure from error
        if not (isinstance(failure, ServerError) and failure.retryable):
            failure.message += " The cache holds a copy, which local_files_only=True loads."
            raise failure from error
        logger.warning(
            "%s did not answer (%s): %s is loaded from the cache at commit %s, which may be old",
            connection.url,
            connection.text(error),
            repo_id,
            cached.revision[:8],
        )
        return cached
    if info.sha is None or info.siblings is None:
        raise _not_a_hub(connection)
    files = tuple(sorted(sibling.rfilename for sibling in info.siblings))
    return HubRepo(repo_id, info.sha, files, offline=False, _asked=revision or "main", _connection=connection)


def _check_id(repo_id: str) -> None:
    """Refuse what cannot be an id; it reaches us as there is no folder of that name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        address = re.fullmatch(r"(?:https?://)?(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)(?:/.*)?", repo_id)
        if address is not None:
            raise UnknownModelError(f"{repo_id!r} is an address: give the id, {address[1]!r}.") from error
        if os.path.isfile(repo_id):
            raise UnknownModelError(f"{repo_id!r} is a file: give the folder that holds it.") from error
        raise UnknownModelError(
            f"There is no folder {repo_id!r}, and it is not a Hub id either (those read 'name' or "
            "'organisation/name'). Check the path."
        ) from error


def _checked_token(token: str | bool | None) -> str | bool | None:
    """The token without white space around it; inside it, the HTTP library would quote the token in its error."""
    if not isinstance(token, str):
        return token
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("token= is empty or holds white space or characters that no token has: copy it anew.")
    return token


def _is_offline() -> bool:
    from huggingface_hub import constants

    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    # huggingface_hub reads the variable at import only, and then refuses every request itself.
    return value.upper() in {"1", "ON", "YES", "TRUE"} or constants.HF_HUB_OFFLINE


def _from_cache(repo_id: str, revision: str | None, connection: _Connection) -> HubRepo | None:
    """The repository as the cache holds it, or None where it does not hold the revision."""
    storage = connection.storage(repo_id)
    wanted = revision or "main"
    commits = _cached_commits(storage)
    ref = _ref(storage, wanted)
    if ref is not None and ref.is_file():
        matching = [commit for commit in commits if commit == ref.read_text().strip()]
    elif re.fullmatch("[0-9a-f]{5,40}", wanted):
        matching = [commit for commit in commits if commit.startswith(wanted)]
    else:
        matching = []
    if len(matching) != 1:
        return None
    folder = storage / "snapshots" / matching[0]
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    return HubRepo(repo_id, matching[0], files, offline=True, _asked=wanted, _connection=connection)


def _cached_commits(storage: Path) -> list[str]:
    snapshots = storage / "snapshots"
    return sorted(folder.name for folder in snapshots.iterdir() if folder.is_dir()) if snapshots.is_dir() else []


def _ref(storage: Path, revision: str) -> Path | None:
    """Where the cache notes the commit of a revision; None for a name that would lead out of its folder."""
    path = Path(revision)
    return None if path.is_absolute() or ".." in path.parts else storage / "refs" / path


def _not_cached(
    repo_id: str, revision: str | None, connection: _Connection, *, local_files_only: bool
) -> UnknownModelError:
    why = "local_files_only=True was given" if local_files_only else "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
    message = (
        f"{repo_id} (revision {revision or 'main'!r}) is not in the cache at {connection.cache}, and {why}: "
        f"{connection.how_to_fetch(repo_id, revision)}."
    )
    commits = _cached_commits(connection.storage(repo_id))
    if commits:
        message += f" Cached are the commits {', '.join(commits)}: revision= takes them."
        return UnknownModelError(message, near=commits)
    return _with_near(message, repo_id, connection)


def _with_near(message: str, repo_id: str, connection: _Connection) -> UnknownModelError:
    """The error with those ids of the cache that look like a typing error away."""
    cached = [folder.name[len("models--") :].replace("--", "/") for folder in connection.cache.glob("models--*")]
    near = [name for name in difflib.get_close_matches(repo_id, cached, n=3, cutoff=0.8) if name != repo_id]
    if near:
        message += f" Did you mean {' or '.join(near)}, which the cache holds?"
    return UnknownModelError(message, near=near)


def hub_errors() -> tuple[type[Exception], ...]:
    """What a request to the Hub may raise.

    Connection errors are those of the HTTP library beneath (httpx or httpx2, as huggingface_hub's version has it), and
    share their base with the Hub's own. All else, from the cache's disk to a missing login, is an OSError, but for
    an answer that is not JSON and the RuntimeErrors of hf_xet.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    transport = [base for base in HfHubHTTPError.__mro__ if base.__module__.startswith("httpx")]
    return (*transport, EntryNotFoundError, OSError, json.JSONDecodeError, RuntimeError)


def _named(error: BaseException, repo_id: str, revision: str | None, connection: _Connection) -> RewardHubError:
    """Our error for one of huggingface_hub: what was wrong and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        # "Neither on the Hub nor in the cache": the cause says what the matter with the Hub is.
        return _named(error.__cause__, repo_id, revision, connection)
    if isinstance(error, errors.GatedRepoError):
        return _gated(error.response.status_code, repo_id, connection)
    if isinstance(error, errors.RepositoryNotFoundError):
        message = (
            f"{connection.url} has no model {repo_id!r}, or it is private and this login may not read it. Check the "
            f"spelling; for a private model, {HOW_TO_LOG_IN}; for a folder of yours, give its path: ./{repo_id}"
        )
        return _with_near(message, repo_id, connection)
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownModelError(
            f"{repo_id} has no branch, tag or commit {revision!r}: see {connection.url}/{repo_id}/commits/main"
        )
    if isinstance(error, errors.DisabledRepoError):
        return UnknownModelError(f"{repo_id} was disabled by the Hub: see {connection.url}/{repo_id}")
    if isinstance(error, errors.EntryNotFoundError):
        return CheckpointError(
            f"A file of {repo_id} is missing at revision {revision or 'main'!r} ({connection.text(error)})."
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return ServerError(f"token=True was given, but nobody is logged in: {HOW_TO_LOG_IN}.", status=401)
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, error.response.status_code, repo_id, connection)
    if isinstance(error, json.JSONDecodeError | errors.FileMetadataError):
        return _not_a_hub(connection)
    if isinstance(error, OSError) and error.errno is not None:
        return CacheError(
            f"{repo_id} cannot be loaded through the cache at {connection.cache} ({connection.text(error)}): make it "
            "readable and writable, make room, or choose another folder with cache_dir= or HF_HOME."
        )
    message = (
        f"{repo_id} cannot be loaded: {connection.url} cannot be reached or broke off ({connection.text(error)}). "
        "Check the network, the proxy settings and HF_ENDPOINT, and try again."
    )
    # httpx calls them ConnectTimeout, ReadTimeout, ...; importing their base would choose between httpx and httpx2.
    timed_out = any("Timeout" in base.__name__ for base in type(error).__mro__)
    return ServerTimeoutError(message) if timed_out else ServerError(message, retryable=True)


def _gated(status: int, repo_id: str, connection: _Connection) -> UnknownModelError:
    page = f"{connection.url}/{repo_id}"
    if status == 401:
        return UnknownModelError(f"{repo_id} is gated: accept its licence at {page}, then {HOW_TO_LOG_IN}.")
    return UnknownModelError(
        f"{repo_id} is gated, and the login in use has no access: accept its licence at {page} (its authors may have "
        "to agree first); a fine-grained token also needs the right to read public gated repositories. To use another "
        f"login, {HOW_TO_LOG_IN}."
    )


def _refused(error: BaseException, status: int, repo_id: str, connection: _Connection) -> ServerError:
    said = connection.text(error)
    if status in (401, 403):
        message = f"{connection.url} refuses the login for {repo_id} ({said}). Is the token still valid? To change it, "
        return ServerError(f"{message}{HOW_TO_LOG_IN}; token=False goes without.", status=status)
    if status == 429:
        advice = f"Wait some minutes; logged-in users may ask more often ({HOW_TO_LOG_IN})."
    else:
        advice = "Try again later." if status >= 500 else "Check the id and HF_ENDPOINT."
    message = f"{connection.url} answered {status} for {repo_id} ({said}). {advice}"
    return ServerError(message, status=status, retryable=status in (408, 429) or status >= 500)


def _not_a_hub(connection: _Connection) -> ServerError:
    return ServerError(
        f"{connection.url} does not answer as the Hub does: check HF_ENDPOINT, the proxy settings, and whether the "
        "network asks for a login of its own."
    )


def _not_safetensors(what: str, why: str) -> CheckpointError:
    return CheckpointError(f"{what} is not a safetensors file, or a broken one: {why}.")
