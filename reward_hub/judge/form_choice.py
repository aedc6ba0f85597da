"""Which form a judge's arguments mean: one that is given, one that is published with the model, or a rubric's."""

from __future__ import annotations

from reward_hub.judge.form import JudgeForm, Mode
from reward_hub.judge.published import form_named, form_of_checkpoint, forms
from reward_hub.judge.rubrics.forms import rubric_form
from reward_hub.judge.rubrics.rubric import Rubric


def form_of(
    model: str, rubric: str | Rubric | None, mode: Mode | None, form: JudgeForm | str | None, use_logprobs: bool
) -> JudgeForm:
    """The form that the arguments mean: the one given, else the one published with the model, else the rubric's."""
    name = form if isinstance(form, str) else _published(model, mode) if form is None else None
    if name is not None:
        form = form_named(name, None if rubric is None else {"rubric": rubric})
    elif isinstance(form, JudgeForm) and rubric is not None and not (form.takes_rubric and isinstance(rubric, str)):
        raise TypeError(f"{form.name} takes no rubric=" + (" but a text." if form.takes_rubric else "."))
    if not isinstance(form, JudgeForm):
        if rubric is None:
            raise TypeError(f"{model!r} is no published judge that is known here; give rubric= (or form=).")
        if not isinstance(rubric, str | Rubric):
            raise TypeError(f"rubric is {type(rubric).__name__}; a text or a Rubric is needed.")
        read = Rubric.parse(rubric) if isinstance(rubric, str) else rubric
        return rubric_form(read, mode or "pointwise", use_logprobs=use_logprobs)
    if mode not in (None, form.mode):
        raise TypeError(f"mode={mode!r}: {form.name} is {form.mode}.")
    if use_logprobs:
        raise TypeError(f"use_logprobs is for rubrics; {form.name} says itself what it reads.")
    return form


def _published(model: str, mode: Mode | None) -> str | None:
    """The form that a published judge is asked in: of the mode wanted, where it has several."""
    found = form_of_checkpoint(model)
    if found is None:
        return None
    of_mode = (form.name for form in forms() if form.mode == mode and any(c.id == model for c in form.checkpoints))
    return next(of_mode, found.name)
