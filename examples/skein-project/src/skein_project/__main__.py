"""Submits the worker, with the environment and this project as they are now."""

import skein

from cluster_pack import yarn_launcher


def main():
    with skein.Client() as client:
        words = "to be or not to be".split()
        app = yarn_launcher.submit(client, "skein_project.worker", words, name="words", memory="512 MiB")
        if not yarn_launcher.wait_for_finished(client, app, 1):
            raise SystemExit(f"{app} failed: yarn logs -applicationId {app}")
        for log in (yarn_launcher.get_application_logs(client, app, 1) or {}).values():
            print(log)


if __name__ == "__main__":
    main()
