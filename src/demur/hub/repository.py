"""A repository on the hub that is written to."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demur.errors import DemurError
from demur.hub.failures import LOGIN, endpoint, explained_upload, status_of
from demur.hub.name import HubName

_SECONDS = 10.0
_THERE_FROM_THE_START = frozenset({".gitattributes", "README.md", "LICENSE", ".gitignore"})


class HubRepository:
    """A model repository of the user.

    Attributes:
        name: name of the repository, `organisation/name`.
        files: names of the files that were in it when it was opened; empty where it is new.
        private: whether it is private, or None where it is new.
    """

    def __init__(self, name: HubName, token: str | None = None) -> None:
        """Look at the repository; nothing is changed.

        Args:
            name: name of the repository, without a revision.
            token: token for the hub; None takes the one that the user logged in with.

        Raises:
            DemurError: there is no token, the name has a revision, or the hub does not answer.
        """
        from huggingface_hub import HfApi, constants, get_token

        if name.revision is not None:
            raise DemurError(
                f"Cannot push to {name}, because a push makes a new revision: give "
                f"{name.repository}."
            )
        self.name = name.repository
        if constants.HF_HUB_OFFLINE:
            raise DemurError(
                f"Cannot push to {self.name}, because HF_HUB_OFFLINE is set: unset it to ask the "
                "hub."
            )
        token = token or get_token()
        if not token:
            raise DemurError(f"Cannot push to {self.name} without a token: log in with {LOGIN}.")
        self._api: Any = HfApi(endpoint=endpoint(), token=token)
        self.files: frozenset[str] = frozenset()
        self.private: bool | None = None
        self._commit: str | None = None
        with explained_upload(self.name):
            self._look()

    @property
    def address(self) -> str:
        """The address of its page."""
        return f"{endpoint()}/{self.name}"

    def _look(self) -> None:
        try:
            information = self._api.model_info(self.name, timeout=_SECONDS)
        except Exception as error:
            # The hub says 401 of what does not exist and of a token that it does not know.
            if type(error).__name__ == "RepositoryNotFoundError" and status_of(error) != 403:
                return
            raise
        self.files = frozenset(file.rfilename for file in information.siblings or ())
        self.private = bool(information.private)
        self._commit = information.sha

    def require_own(self, ours: Collection[str], what: str) -> None:
        """Check that nothing else would be overwritten.

        Args:
            ours: names of files, one of which marks a repository of this kind.
            what: what such a repository holds, for messages.

        Raises:
            DemurError: the repository holds something else.
        """
        others = sorted(self.files - _THERE_FROM_THE_START)
        if others and not self.files & set(ours):
            raise DemurError(
                f"{self.name} on the hub holds something other than {what} ({others[0][:60]}): "
                "choose another name."
            )

    def read(self, file: str, most_bytes: int = 1_000_000) -> str | None:
        """The text of a small file, or None where there is none or it cannot be read."""
        if file not in self.files or self._commit is None:
            return None
        try:
            with TemporaryDirectory() as folder:
                path = self._api.hf_hub_download(
                    self.name, file, revision=self._commit, local_dir=folder
                )
                data = Path(path).read_bytes()
        except Exception:
            return None
        return data.decode("utf-8", "replace") if len(data) <= most_bytes else None

    def commit(
        self,
        files: Mapping[str, bytes],
        message: str,
        *,
        replacing: Collection[str] = (),
        private: bool | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Write files in one commit. The repository is made where there is none.

        Args:
            files: content of each file by its name.
            message: message of the commit.
            replacing: names of files that are deleted unless they are in `files`.
            private: whether a new repository is private; None leaves that to the hub's settings.
            branch: branch to commit to; None is the main one.
            create_pr: whether to open a pull request instead.

        Returns:
            The commit.

        Raises:
            DemurError: a public repository is there and should be private; the hub refuses, or
                does not answer.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        if private and self.private is False:
            raise DemurError(
                f"{self.name} is there already and is public: make it private on the hub first, "
                "or choose another name."
            )
        stale = sorted((set(replacing) & self.files) - files.keys())
        operations = [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in files),
            *(CommitOperationDelete(path_in_repo=name) for name in stale),
        ]
        with explained_upload(self.name), _quiet():
            if self.private is None:
                self._api.create_repo(self.name, private=private, repo_type="model", exist_ok=True)
                self._look()
                if private and not self.private:
                    raise DemurError(
                        f"The hub made {self.name} public and nothing was pushed: make it private "
                        "there and push again."
                    )
            done = self._api.create_commit(
                self.name,
                operations,
                commit_message=message,
                revision=branch,
                create_pr=create_pr,
            )
        return str(done.oid)


def _quiet() -> Any:
    """Silence the client's bars and warnings, which would fall between those of demur."""
    from contextlib import ExitStack
    from warnings import catch_warnings, simplefilter

    utils: Any = importlib.import_module("huggingface_hub.utils")
    stack = ExitStack()
    stack.enter_context(catch_warnings())
    simplefilter("ignore")
    if not utils.are_progress_bars_disabled():
        utils.disable_progress_bars()
        stack.callback(utils.enable_progress_bars)
    return stack
