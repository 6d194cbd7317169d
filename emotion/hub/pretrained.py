"""The three methods that users of a Hub expect of every model, on top of `hub`, `publishing` and `remote`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from emotion.errors import UserError

Model = TypeVar("Model", bound="Pretrained")


class Pretrained:
    """Mixed into the networks: loading, saving and publishing under the names that `huggingface_hub` uses.

    Unlike its own mixin this one reads all files from one commit, refuses tensors that do not fit, and prints nothing.
    """

    card: Any = None  # hub.Card; set when a checkpoint is loaded
    readme: str = ""  # the text of its model card, likewise
    measured: tuple[Any, Any] = ({}, None)  # its figures and the fingerprint of the weights they are of, likewise

    @classmethod
    def from_pretrained(
        cls: type[Model], pretrained_model_name_or_path: str | Path, *, revision: str | None = None, **download: Any
    ) -> Model:
        """A model of this class in evaluation mode.

        Args:
            pretrained_model_name_or_path: OWNER/NAME on a Hub, folder, or registry name.
            revision: branch, tag or commit on the Hub.
            download: token, cache_dir, force_download, local_files_only (see `remote.fetch`), device (see `hub.load`).

        Raises:
            UserError: as `hub.load`, or it is a model of another class.
        """
        from emotion import hub

        model = hub.load(pretrained_model_name_or_path, revision=revision, **download)
        if not isinstance(model, cls):
            raise UserError(f"{pretrained_model_name_or_path} is of class {type(model).__name__}, not {cls.__name__}")
        return model

    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, repo_id: str | None = None, **push: Any
    ) -> str | None:
        """Write the checkpoint folder: configuration, weights and model card; what the card said is kept.

        Figures that came with the checkpoint are left out where the weights have changed since: they are of others.

        Args:
            save_directory: the folder; made, or what is a checkpoint in it replaced.
            push_to_hub: publish it as well.
            repo_id: where, OWNER/NAME; default: the folder's name.
            push: options of `push_to_hub`.

        Returns:
            The commit's address if it was published.

        Raises:
            UserError: the model has no card yet, something else lies there, or it cannot be written or published.
        """
        from emotion import hub, registry
        from emotion.hub import publishing

        if self.card is None:
            raise UserError("this model has no card yet: model.card = emotion.hub.Card(name=..., licence=..., ...)")
        place = f"{type(self).__module__}:{type(self).__name__}"
        method = next(name for name, where in registry.METHODS.items() if where == place)
        card, text = self.card, self.readme
        figures, weights = self.measured
        if weights and card.metrics == figures and hub.fingerprint(self) != weights:
            card, text = publishing.unmeasured(card, text)
        hub.save(self, method, save_directory, card, publishing.model_card(card, method, text))
        return self.push_to_hub(repo_id or Path(save_directory).name, **push) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Publish the model; returns the commit's address.

        Args:
            repo_id: OWNER/NAME; made if there is none.
            commit_message: one line.
            private: whether a new repository is only for its owner.
            token: instead of HF_TOKEN or the one stored on logging in.
            branch: instead of the default one; made if there is none.
            create_pr: propose it to the repository's owners.

        Raises:
            UserError: no card, no licence, or the Hub refuses.
        """
        import tempfile

        from emotion.hub import publishing

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return publishing.publish(
                folder,
                repo_id,
                private=bool(private),
                token=token,
                commit_message=commit_message or publishing.MESSAGE,
                branch=branch,
                create_pr=bool(create_pr),
            )
