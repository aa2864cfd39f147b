"""Every command that a page tells the reader to run, and how it is tested."""

RUN = "run by tests/test_docs_commands.py"
HELP = "its --help is run by tests/test_docs_commands.py"
PREPARE = "checked up to the start of Flower by tests/test_docs_commands.py"
IN_CI = ".ci/run"
TUTORIAL_TEST = "tests/e2e/test_tutorial.py::test_every_block_works_in_the_order_of_the_page"
HOSPITALS_TEST = (
    "tests/e2e/test_hospitals.py::"
    "test_five_hospitals_teach_one_student_and_the_tiny_one_is_left_out"
)
MIXED_TEST = (
    "tests/e2e/test_hospitals.py::test_hospitals_of_one_federation_answer_by_unlike_mechanisms"
)
MNIST_TEST = (
    "tests/e2e/test_mnist_app.py::"
    "test_one_command_trains_the_encoder_and_a_student_that_begins_as_it"
)
PROVISION_TEST = (
    "tests/e2e/test_provisioned.py::test_the_page_works_and_strangers_and_revoked_sites_stay_out"
)
LEDGER_TESTS = "tests/privacy/test_ledger_commands.py"
EMBED = "fedistill data embed /data/complaints.csv"
EMBED_TESTS = "tests/cli/test_embed_command.py"
MINILM_TEST = f"{EMBED_TESTS}::test_the_texts_of_the_docs_become_a_table_that_a_run_takes"
SITE_TESTS = "tests/cli/test_site_agent.py"
DEPLOYMENT_TEST = (
    "tests/e2e/test_deployment_page.py::test_the_page_leads_from_empty_folders_to_a_student"
)
DEV_TEST = (
    "tests/e2e/test_dev_federation.py::test_from_nothing_to_a_secured_run_and_back_to_nothing"
)
SERVICE_TEST = (
    "tests/provision/test_service_files.py::"
    "test_the_pages_make_the_users_and_folders_that_the_units_name"
)
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install -c requirements.lock"
SIMULATE = "fedistill simulate simulations/banks_3"
COMMANDS = {
    f"{INSTALL} -e . && flwr run simulations/banks_3 --stream": IN_CI,
    f"{INSTALL} -e '.[test]' && pytest -n auto --dist loadfile": IN_CI,
    f"{INSTALL} -e '.[test]'": IN_CI,
    "flwr run simulations/banks_3 --stream": IN_CI,
    "scripts/check": "scripts/check",
    "fedistill --version": RUN,
    "fedistill --help": RUN,
    "fedistill config": RUN,
    "fedistill simulate --help": RUN,
    "fedistill data list": RUN,
    "fedistill plan --proxy heart_disease --rows-at-least 200 --seconds 0": RUN,
    "fedistill plan --proxy heart_disease --label-column disease --rows-at-least 200 "
    "--mechanism dp-probe --mechanism dp-sgd --seconds 0": RUN,
    "fedistill plan --proxy proxy.parquet --rows-at-least 6500 --sites 3 --epsilon 1": HELP,
    "fedistill plan --proxy proxy.parquet --rows-at-least 6500 --format json --plot plan.html": (
        HELP
    ),
    "python -m benchmarks.mnist_pate --data-dir DIR": HELP,
    "python -m benchmarks.compression --data-dir DIR": HELP,
    "python -m benchmarks.planner --data-dir DIR": HELP,
    "python -m benchmarks.banks": HELP,
    "python -m benchmarks.banks --trust secagg --partitions iid --sets thyroid credit_default "
    "adult --data-dir DIR": HELP,
    "python -m benchmarks.secagg": HELP,
    "python -m benchmarks.main_job": HELP,
    "python -m benchmarks.vs_fedavg_dpsgd --data-dir DIR": HELP,
    "python -m benchmarks.vs_fedavg_dpsgd --data-dir DIR --write-page docs/comparison.md": HELP,
    "python -m benchmarks.ensemble_weights --data-dir DIR": HELP,
    "python -m benchmarks.poisoning --data-dir DIR": HELP,
    "python -m benchmarks.recipes --data-dir DIR": HELP,
    "python -m benchmarks.trainer_scaling": HELP,
    f"{SIMULATE} -c 'recipe=\"curriculum\"'": PREPARE,
    f"{SIMULATE} -c 'secure-aggregation=false ensemble-weights=\"median\" min-sites=3'": PREPARE,
    "python -m benchmarks.probe_settings --data-dir DIR": HELP,
    "python -m benchmarks.shared_noise --data-dir DIR": HELP,
    "flwr run simulations/hospitals_5 --stream": HOSPITALS_TEST,
    SIMULATE: PREPARE,
    f"{SIMULATE} -c 'epsilon=0.5 partition=\"iid\"'": PREPARE,
    f"{SIMULATE} -c 'epsilon=2.0 seed=1'": PREPARE,
    f"{SIMULATE} -c 'compression=\"light\"'": PREPARE,
    f'{SIMULATE} -c \'prune-ratio=0.6 prune-by="taylor" quantize="int8-qat"\'': PREPARE,
    f"{SIMULATE} -c 'max-bytes=20000 max-latency-ms=0.05'": PREPARE,
    f"{SIMULATE} -c 'holdout-fraction=0.2 evaluation-epsilon=0.5'": PREPARE,
    f"{SIMULATE} --dry-run -c 'dataset=/data/loans.csv label-column=defaulted partition=iid'": (
        PREPARE
    ),
    f"{SIMULATE} -c 'dataset=/data/loans.csv label-column=defaulted partition=iid'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/loans.csv label-column=defaulted site-column=branch'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/loans.npz partition=quantile:income num-sites=2'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/visits.parquet label-column=readmitted site-column=hospital "
    "unit-column=patient ignore-columns=visit,note'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/digits.npz partition=iid encoder=/data/digits.onnx'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/digits.npz partition=iid encoder=/data/digits.onnx "
    "mechanism=votes'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/digits.npz partition=iid encoder=/data/digits.onnx "
    "student=cnn'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/digits.npz partition=iid student=my_students:wide'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/notes.npz partition=iid encoder=/data/notes.onnx'": PREPARE,
    f"{SIMULATE} -c 'dataset=/data/digits.npz partition=iid encoder=my_encoders:halves'": PREPARE,
    f"{EMBED} /data/complaints.parquet --column text": MINILM_TEST,
    f"{SIMULATE} -c 'dataset=/data/complaints.parquet label-column=fraud partition=iid'": (
        MINILM_TEST
    ),
    f"{EMBED} /data/letters.csv --column text --encoder my_texts:letters": (
        f"{EMBED_TESTS}::test_the_encoder_of_the_docs_counts_letters"
    ),
    "fedistill encoder train /data/public.parquet /data/digits.onnx --ignore-columns note": (
        "tests/cli/test_encoder_command.py::test_the_command_writes_an_encoder"
    ),
    "fedistill simulate simulations/hospitals_5": PREPARE,
    "fedistill simulate simulations/mnist_3 -c 'dataset=/data/mnist.npz'": MNIST_TEST,
    "fedistill simulate simulations/mnist_3 -c 'dataset=/data/mnist.npz encoder-epochs=200 "
    "student-epochs=60 cross-fit-folds=3'": MNIST_TEST,
    "python -m benchmarks.image_throughput --device cuda": HELP,
    "fedistill simulate simulations/hospitals_5 --dry-run": PREPARE,
    "fedistill simulate simulations/hospitals_5 -c "
    '\'site-mechanisms="other=dp-sgd, SVI=dp-ebm" float-noise="allow"\'': MIXED_TEST,
    f"{SIMULATE} -c 'solver=\"moment\"'": PREPARE,
    f'{SIMULATE} -c \'mechanism="dp-sgd" float-noise="allow"\'': PREPARE,
    f'{SIMULATE} -c \'mechanism="dp-ebm" float-noise="allow"\'': PREPARE,
    f'{SIMULATE} -c \'mechanism="sharded" teacher="boosting"\'': PREPARE,
    f'{SIMULATE} -c \'secure-aggregation=false mechanism="sharded" answers="confident"\'': PREPARE,
    f"{SIMULATE} -c 'mechanism=\"votes\"'": PREPARE,
    f"{SIMULATE} -c 'mechanism=\"clipped\"'": PREPARE,
    f"{SIMULATE} -c 'mechanism=\"clipped-site\"'": PREPARE,
    f"{SIMULATE} -c 'mechanism=\"corrections\"'": PREPARE,
    "fedistill ledger show ~/ledgers/bank_a.ledger.db": (
        f"{LEDGER_TESTS}::test_show_lists_what_was_spent_on_what"
    ),
    "fedistill ledger verify ~/ledgers/bank_a.ledger.db": (
        f"{LEDGER_TESTS}::test_verify_finds_an_untouched_ledger_valid"
    ),
    "fedistill ledger budget --ledger ~/ledgers/bank_a.ledger.db": (
        f"{LEDGER_TESTS}::test_budget_prints_what_is_spent_and_left"
    ),
    "fedistill data proxy public.csv proxy.bin --ignore-columns defaulted": (
        "tests/cli/test_site_agent.py::test_a_proxy_set_is_made_of_public_rows"
    ),
    "fedistill site receipts --config bank_a/agent.toml": DEPLOYMENT_TEST,
    "fedistill ledger verify bank_a/ledger.db": DEPLOYMENT_TEST,
    "fedistill site pending --config bank_a/agent.toml": f"{SITE_TESTS}::test_the_owner_decides",
    "fedistill site approve 1234 --config bank_a/agent.toml": (
        f"{SITE_TESTS}::test_the_owner_decides"
    ),
    "fedistill site deny 1234 --config bank_a/agent.toml": f"{SITE_TESTS}::test_the_owner_decides",
    "fedistill site start --config bank_a/agent.toml --log-format json --log-level debug": (
        f"{SITE_TESTS}::test_an_agent_logs_json_from_its_start_to_its_end"
    ),
    "fedistill site status --config bank_a/agent.toml --format json": (
        f"{SITE_TESTS}::test_status_in_json_has_what_an_operator_wants"
    ),
    "fedistill site confirm-data --config bank_a/agent.toml": (
        f"{SITE_TESTS}::test_rows_that_changed_start_no_agent_before_their_owner_confirms_them"
    ),
    "fedistill ledger verify bank_a/ledger.db --anchor bank_a.anchor": (
        "tests/privacy/test_ledger_tampering.py::"
        "test_ledger_and_anchor_restored_together_are_found_by_a_copy_of_the_anchor"
    ),
    "fedistill dev up && fedistill dev run": DEV_TEST,
    "fedistill dev up": DEV_TEST,
    "fedistill dev run": DEV_TEST,
    "fedistill dev status": DEV_TEST,
    "fedistill dev down": DEV_TEST,
    "python -m benchmarks.dev_run": HELP,
}
