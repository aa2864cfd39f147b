"""The courier's part of a sealed round: five steps, the site's memory between them kept in memory.

Keys and shares of a round live in the node's `context.state`, which Flower's simulation keeps in
memory and loses with the process: a round that was cut short begins anew, with fresh keys.
"""

from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedistill.config import RunConfig
from fedistill.errors import MessageRefused, PolicyRefusal, public_class_of
from fedistill.federation import records, sealed_messages
from fedistill.federation.run_folder import run_folder
from fedistill.federation.sealed_messages import Reply
from fedistill.federation.simulation import open_site, prepare_data
from fedistill.federation.site_log import log_error, log_warning
from fedistill.secagg import KeyAdvert, Participation, ShareDelivery, SurvivorSignature
from fedistill.site import LocalAgent, SealedRound, sealing
from fedistill.site.receipting import keep_countersigned

Step = Callable[[LocalAgent, SealedRound, list[bytes]], tuple[SealedRound, Reply]]


def keys(message: Message, context: Context) -> Message:
    """The round is opened: fresh signed keys."""
    named = str(message.content.config_records.get("question", ConfigRecord()).get("site"))

    def step(agent: LocalAgent) -> tuple[SealedRound, Reply]:
        invited = sealed_messages.read_invitation(message.content)
        if invited.terms.config_sha256 != _config(context).sha256():
            raise PolicyRefusal("the round's config_sha256 must be that of the run's config")
        if note := prepare_data(_config(context)).notes.get(agent.policy.site):
            log_warning(_folder(context, agent.policy.site), note)
        return sealing.keys(agent, invited.question, invited.terms, invited.stated)

    return _reply(message, context, named, step)


def shares(message: Message, context: Context) -> Message:
    """Encrypted shares for the peers."""

    def step(agent: LocalAgent, this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Reply]:
        adverts = [KeyAdvert.from_bytes(part, this.state.terms) for part in parts]
        return sealing.shares(agent, this, adverts)

    return _continue(message, context, step)


def labels(message: Message, context: Context) -> Message:
    """Noised labels, masked."""

    def step(agent: LocalAgent, this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Reply]:
        part, weights = parts
        delivery = ShareDelivery.from_bytes(part, this.state.terms)
        return sealing.labels(agent, this, delivery, weights)

    return _continue(message, context, step)


def agree(message: Message, context: Context) -> Message:
    """A signature of who survived."""

    def step(_: LocalAgent, this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Reply]:
        words = [Participation.from_bytes(part, this.state.terms) for part in parts]
        return sealing.agree(this, words)

    return _continue(message, context, step)


def unmask(message: Message, context: Context) -> Message:
    """The shares that open the sum."""

    def step(_: LocalAgent, this: SealedRound, parts: list[bytes]) -> tuple[SealedRound, Reply]:
        signatures = [SurvivorSignature.from_bytes(part, this.state.terms) for part in parts]
        return sealing.unmask(this, signatures)

    return _continue(message, context, step)


def receipts(message: Message, context: Context) -> Message:
    """What the server countersigned, kept beside the receipts."""
    site = "unknown"
    try:
        named, parts = sealed_messages.read_parts(message.content)
        config, run = _config(context), str(context.run_id)
        if named in prepare_data(config).site_names:
            site = named  # a name from the wire becomes a path only now, when it is known
        with open_site(config, named, run_folder(config, run), run) as agent:
            keep_countersigned(agent, parts)
        content = records.sealed_record(site, b"")
    except Exception as error:
        log_error(_folder(context, site), error)
        content = records.refusal_record(site, public_class_of(error))
    return Message(content, reply_to=message)


def _continue(message: Message, context: Context, step: Step) -> Message:
    named = str(message.content.config_records.get("step", ConfigRecord()).get("site"))

    def next_step(agent: LocalAgent) -> tuple[SealedRound, Reply]:
        _, parts = sealed_messages.read_parts(message.content)
        return step(agent, _remembered(context.state, agent.policy.site), parts)

    return _reply(message, context, named, next_step)


def _reply(
    message: Message,
    context: Context,
    named: str,
    step: Callable[[LocalAgent], tuple[SealedRound, Reply]],
) -> Message:
    """One step at the site that is named, and its new memory; failures are a public class."""
    site = "unknown"
    try:
        config = _config(context)
        if named in prepare_data(config).site_names:
            site = named  # a name from the wire becomes a path only now, when it is known
        run = str(context.run_id)
        with open_site(config, named, run_folder(config, run), run) as agent:
            this, reply = step(agent)
        content = sealed_messages.reply_to_record(site, reply)
        records.add_receipt(content, agent.statement)
        context.state[_place(site)] = ConfigRecord({"round": this.to_bytes()})
    except Exception as error:
        # Everything private code raises stops here (PRIVACY rule 3).
        log_error(_folder(context, site), error)
        content = records.refusal_record(site, public_class_of(error))
    return Message(content, reply_to=message)


def _remembered(state: RecordDict, site: str) -> SealedRound:
    stored = state.config_records.get(_place(site), ConfigRecord()).get("round")
    if not isinstance(stored, bytes):
        raise MessageRefused(f"{site} has no round open: it was restarted, or never invited")
    return SealedRound.from_bytes(stored)


def _place(site: str) -> str:
    return f"round of {site}"


def _folder(context: Context, site: str) -> Path:
    return run_folder(_config(context), str(context.run_id)).site(site)


def _config(context: Context) -> RunConfig:
    return RunConfig.from_flat(context.run_config)
