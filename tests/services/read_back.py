"""Everything that MLflow's own client knows of a run, as JSON on standard output.

    read_back.py run TRACKING_URI RUN_ID        one run: params, tags, metric histories, inputs, ...
    read_back.py texts TRACKING_URI RUN_ID      the same with the artifacts' content as text
    read_back.py model TRACKING_URI NAME        a registered model: versions, aliases, stages
    read_back.py histories TRACKING_URI NAME    metric histories of all runs of the experiment NAME
"""

import hashlib
import json
import os
import sys
import tempfile

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402


def history(client, run_id, key):
    points, token = [], None
    while True:
        page = client._tracking_client.store.get_metric_history(run_id, key, max_results=20000, page_token=token)
        points += page
        token = getattr(page, "token", None)
        if not token:
            return points


def artifacts(client, run_id, path=None):
    for entry in client.list_artifacts(run_id, path):
        if entry.is_dir:
            yield from artifacts(client, run_id, entry.path)
        else:
            yield entry


def read_texts(client, run_id):
    return read_run(client, run_id, lambda content: content.decode("utf-8", "replace"))


def read_run(client, run_id, digest=lambda content: hashlib.sha256(content).hexdigest()):
    run = client.get_run(run_id)
    files = {}
    with tempfile.TemporaryDirectory() as directory:
        for entry in artifacts(client, run_id):
            local = client.download_artifacts(run_id, entry.path, directory)
            with open(local, "rb") as file:
                files[entry.path] = digest(file.read())
    experiment = client.get_experiment(run.info.experiment_id)
    children = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["attributes.start_time ASC"]
    )
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    return {
        "experiment": experiment.name,
        "name": run.info.run_name,
        "status": run.info.status,
        "artifact_uri": run.info.artifact_uri,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            key: [[p.step, p.timestamp, str(p.value)] for p in history(client, run_id, key)]
            for key in run.data.metrics
        },
        "inputs": [
            {
                "name": i.dataset.name,
                "digest": i.dataset.digest,
                "source": i.dataset.source,
                "tags": {t.key: t.value for t in i.tags},
            }
            for i in run.inputs.dataset_inputs
        ],
        "outputs": [{"model_id": m.model_id, "step": m.step} for m in run.outputs.model_outputs] if run.outputs else [],
        "models": [
            {"id": m.model_id, "name": m.name, "status": str(m.status), "tags": m.tags, "run": m.source_run_id}
            for m in models
        ],
        "artifacts": files,
        "children": [r.info.run_name for r in children],
    }


def read_model(client, name):
    model = client.get_registered_model(name)
    return {
        "aliases": model.aliases,
        "versions": [
            {
                "version": v.version,
                "stage": v.current_stage,
                "source": v.source,
                "run_id": v.run_id,
                "description": v.description,
                "tags": v.tags,
                "files": sorted(os.listdir(mlflow.artifacts.download_artifacts(f"models:/{name}/{v.version}"))),
            }
            for v in client.search_model_versions(f"name = '{name}'")
        ],
    }


def read_histories(client, name):
    experiment = client.get_experiment_by_name(name)
    found, token = [], None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return [
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "params": run.data.params,
            "metrics": {
                key: [[p.step, str(p.value)] for p in history(client, run.info.run_id, key)] for key in run.data.metrics
            },
        }
        for run in found
    ]


def main():
    what, uri, name = sys.argv[1:]
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient(uri)
    print(json.dumps({"run": read_run, "texts": read_texts, "model": read_model, "histories": read_histories}[what](client, name)))


main()
