"""The courier of simulated sites: a Flower ClientApp that carries questions in and releases out.

It imports no torch. A node hosts several sites: node p of P hosts sites s with s mod P == p.
Whatever goes wrong, the wire sees a public class only; the text stays in the site's own log. A
deployed site has `courier` in its place.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedistill.config import RunConfig
from fedistill.errors import public_class_of
from fedistill.federation import evaluation_messages, messages, records, sealed_client
from fedistill.federation.run_folder import ledger_path, run_folder
from fedistill.federation.simulation import open_site, prepare_data, public_identity
from fedistill.federation.site_log import log_error, log_warning
from fedistill.labels import EvaluationRelease, LabelQuestion, LabelRelease
from fedistill.privacy.ledger_anchor import anchor_to_bytes
from fedistill.site import LocalAgent, evaluating

app = ClientApp()

Released = TypeVar("Released", LabelRelease, EvaluationRelease)


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Name the sites that this node hosts, and the public key of each."""
    identities: dict[str, bytes] = {}
    anchors: dict[str, bytes] = {}
    config = _config(context)
    # A node whose data cannot be read hosts nobody; why, its owner sees in the local checks.
    with suppress(Exception):
        folder = run_folder(config, str(context.run_id))
        identities = {
            site: public_identity(config, folder, site)
            for site in hosted_sites(
                prepare_data(config).site_names,
                int(context.node_config["partition-id"]),
                int(context.node_config["num-partitions"]),
            )
        }
        anchors = {site: anchor_to_bytes(ledger_path(config, folder, site)) for site in identities}
    return Message(records.hello_record(identities, anchors), reply_to=message)


@app.train("labels")
def labels(message: Message, context: Context) -> Message:
    """Noised labels on the proxy set."""
    config = _config(context)

    def ask(agent: LocalAgent, question: LabelQuestion) -> LabelRelease:
        site = agent.policy.site
        if note := prepare_data(config).notes.get(site):
            log_warning(run_folder(config, str(context.run_id)).site(site), note)
        return agent.labels(question)

    return _answer(message, context, ask, messages.release_to_record)


@app.evaluate("labels")
def evaluate(message: Message, context: Context) -> Message:
    """The same teacher's labels on the public test rows."""

    def ask(agent: LocalAgent, question: LabelQuestion) -> LabelRelease:
        return agent.evaluate(question, prepare_data(_config(context)).test_rows)

    return _answer(message, context, ask, messages.release_to_record)


@app.evaluate("student")
def student(message: Message, context: Context) -> Message:
    """Noised tables of how a student does on the rows that the site held out."""

    def ask(agent: LocalAgent, question: LabelQuestion) -> EvaluationRelease:
        sent = evaluation_messages.read_student(message.content)
        return evaluating.evaluate(agent, question, sent)

    return _answer(message, context, ask, evaluation_messages.release_to_record)


app.train("keys")(sealed_client.keys)
app.train("shares")(sealed_client.shares)
app.train("sealed")(sealed_client.labels)
app.train("agree")(sealed_client.agree)
app.train("unmask")(sealed_client.unmask)
app.train("receipts")(sealed_client.receipts)


def hosted_sites(sites: tuple[str, ...], node: int, num_nodes: int) -> tuple[str, ...]:
    """Sites of node `node` of `num_nodes`."""
    return sites[node::num_nodes]


def _answer(
    message: Message,
    context: Context,
    ask: Callable[[LocalAgent, LabelQuestion], Released],
    to_record: Callable[[str, Released], RecordDict],
) -> Message:
    config = _config(context)
    run = str(context.run_id)
    folder = run_folder(config, run)
    site = "unknown"
    try:
        asked, question = messages.read_question(message.content)
        if asked in prepare_data(config).site_names:
            site = asked  # a name from the wire becomes a path only now, when it is known
        with open_site(config, asked, folder, run) as agent:
            content = to_record(site, ask(agent, question))
        records.add_receipt(content, agent.statement)
    except Exception as error:
        # Everything private code raises stops here (PRIVACY rule 3).
        log_error(folder.site(site), error)
        content = records.failure_record(site, public_class_of(error))
    return Message(content, reply_to=message)


def _config(context: Context) -> RunConfig:
    return RunConfig.from_flat(context.run_config)
