"""SkyPilot's own parser on task files: python sky_tasks.py FILE... (PyPI: skypilot)"""

import sys

import sky
import yaml

for file in sys.argv[1:]:
    with open(file) as text:
        settings = yaml.safe_load(text)
    # As with --secret NAME on the command line.
    secrets = [(name, "-") for name in settings.get("secrets", {})]
    task = sky.Task.from_yaml_config(settings, secrets_overrides=secrets)
    print(file, "ok:", *task.resources, *sorted(task.secrets))
