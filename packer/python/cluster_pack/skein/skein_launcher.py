"""Submits functions and modules as Skein applications, and follows them."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from cluster_pack.errors import ClusterPackError
from cluster_pack.settings import _get_current_user
from cluster_pack.skein import skein_config_builder

if TYPE_CHECKING:
    import skein

_logger = logging.getLogger(__name__)

_LOG_PAUSE_SECONDS = 3

# The heading of a container's part in what `yarn logs` prints.
_CONTAINER = re.compile(r"^Container: (container_\S+) on .*$", re.MULTILINE)


def submit(
    skein_client: skein.Client,
    module_name: str,
    args: Optional[List[str]] = None,
    name: str = "skein_launcher",
    num_cores: int = 1,
    memory: str = "1 GiB",
    package_path: Optional[str] = None,
    hadoop_file_systems: Optional[List[str]] = None,
    queue: Optional[str] = None,
    env_vars: Optional[Dict[str, str]] = None,
    additional_files: Optional[List[str]] = None,
    node_label: Optional[str] = None,
    num_containers: int = 1,
    user: Optional[str] = None,
    acquire_map_reduce_delegation_token: bool = False,
    pre_script_hook: Optional[str] = None,
    max_attempts: int = 1,
    max_restarts: int = 0,
    process_logs: Optional[Callable[[str], Any]] = None,
    allow_large_pex: bool = False,
) -> str:
    """Runs a module in containers and returns the application's id.

    :param skein_client: a client of Skein
    :param module_name: the module, or a script that ends in `.py`
    :param args: its arguments
    :param name: the application's name
    :param num_cores: virtual cores of a container
    :param memory: memory of a container
    :param package_path: an uploaded environment; by default the one in which this runs
    :param hadoop_file_systems: file systems whose tokens the containers need
    :param queue: the queue
    :param env_vars: variables of the containers
    :param additional_files: further files for the working directory
    :param node_label: label of the nodes
    :param num_containers: how many containers do the same
    :param user: the user to impersonate
    :param acquire_map_reduce_delegation_token: get a token of the history server, too
    :param pre_script_hook: shell commands before Python
    :param max_attempts: attempts of the application master
    :param max_restarts: restarts of containers
    :param process_logs: called in the container with the path of its log, at the end
    :param allow_large_pex: ship a zipped PEX directory
    """
    with tempfile.TemporaryDirectory() as directory:
        config = skein_config_builder.build(
            module_name, args or [], package_path, additional_files, directory, process_logs, allow_large_pex
        )
        skein = _skein()
        env = {**(env_vars or {}), **config.env}
        files = {name: _file(skein, name, source) for name, source in config.files.items()}
        ticket = _get_kerberos_ticket_path()
        if ticket:
            env["KRB5CCNAME"] = f"FILE:{os.path.basename(ticket)}"
            files[os.path.basename(ticket)] = skein.File(source=ticket, type="file")
        service = skein.Service(
            resources=skein.Resources(memory=memory, vcores=num_cores),
            instances=num_containers,
            files=files,
            env=env,
            script="\n".join(filter(None, [pre_script_hook, config.script])),
            max_restarts=max_restarts,
            node_label=node_label or "",
        )
        spec = skein.ApplicationSpec(
            name=name,
            queue=queue or "default",
            file_systems=hadoop_file_systems,
            services={name: service},
            acls=skein.ACLs(enable=True, ui_users=["*"], view_users=["*"]),
            max_attempts=max_attempts,
        )
        if hasattr(skein.ApplicationSpec, "acquire_map_reduce_delegation_token"):
            spec.acquire_map_reduce_delegation_token = acquire_map_reduce_delegation_token
        # YARN refuses to let users impersonate themselves.
        if user and user != _get_current_user():
            spec.user = user
        return skein_client.submit(spec)


def submit_func(
    skein_client: skein.Client,
    func: Callable,
    args: List[Any] = [],
    name: str = "skein_launcher",
    num_cores: int = 1,
    memory: str = "1 GiB",
    package_path: Optional[str] = None,
    hadoop_file_systems: Optional[List[str]] = None,
    queue: Optional[str] = None,
    env_vars: Optional[Dict[str, str]] = None,
    additional_files: Optional[List[str]] = None,
    node_label: Optional[str] = None,
    num_containers: int = 1,
    user: Optional[str] = None,
    acquire_map_reduce_delegation_token: bool = False,
    pre_script_hook: Optional[str] = None,
    max_attempts: int = 1,
    max_restarts: int = 0,
    process_logs: Optional[Callable[[str], Any]] = None,
    allow_large_pex: bool = False,
) -> str:
    """Calls a function in containers and returns the application's id. Parameters are those of `submit`."""
    with tempfile.TemporaryDirectory() as directory:
        module_name, words, files = skein_config_builder._function(func, args, package_path, directory)
        return submit(
            skein_client,
            module_name,
            words,
            name,
            num_cores,
            memory,
            package_path,
            hadoop_file_systems,
            queue,
            env_vars,
            [*(additional_files or []), *files],
            node_label,
            num_containers,
            user,
            acquire_map_reduce_delegation_token,
            pre_script_hook,
            max_attempts,
            max_restarts,
            process_logs,
            allow_large_pex,
        )


def _file(skein: Any, name: str, source: str) -> Any:
    """What was named as a file of the working directory, shipped as such.

    Skein unpacks what is called like an archive, whatever name it shall have. The parts of launchers in a store never
    change: a node fetches each once for all applications of the user.
    """
    is_archive = source.endswith((".zip", ".tar.gz", ".tgz")) and os.path.splitext(name)[1] not in (".zip", ".gz", ".tgz")
    is_part = os.path.basename(os.path.dirname(source)) in ("launchers", "boot")
    immutable = is_part and "://" in source and not source.startswith("file:")
    visibility = "private" if immutable else "application"
    return skein.File(source=source, type="archive" if is_archive else "infer", visibility=visibility)


def _skein() -> Any:
    try:
        import skein
    except ImportError:
        raise ClusterPackError("skein is not installed: pip install 'cluster-pack[skein]'") from None
    return skein


def _get_kerberos_ticket_path() -> Optional[str]:
    """The file of the user's tickets, which containers get."""
    named = os.environ.get("KRB5CCNAME")
    if named is None:
        usual = f"/tmp/krb5cc_{os.getuid()}"
        return usual if os.path.exists(usual) else None
    kind, separator, path = named.partition(":")
    if not separator:
        return named
    if kind != "FILE":
        _logger.warning("the tickets of KRB5CCNAME=%s cannot be shipped: only those in files can", named)
        return None
    return path


def upload_logs_to_hdfs(path_on_hdfs: str, local_log_path: str) -> None:
    """Keeps a log: for `process_logs`."""
    from cluster_pack import filesystem

    files, path = filesystem.resolve_filesystem_and_path(path_on_hdfs)
    files.put(local_log_path, path)


def get_application_logs(
    client: skein.Client,
    app_id: str,
    wait_for_nb_logs: Optional[int] = None,
    log_tries: int = 15,
) -> Optional[skein.model.ApplicationLogs]:
    """The logs of an application: waits until YARN has collected `wait_for_nb_logs`, and returns what there is."""
    logs = None
    for attempt in range(log_tries):
        try:
            logs = _logs(client, app_id)
            if not wait_for_nb_logs or len(logs) >= wait_for_nb_logs:
                return logs
            _logger.info("got %d of %d logs", len(logs), wait_for_nb_logs)
        except Exception as error:
            _logger.warning("no logs yet (attempt %d of %d): %s", attempt + 1, log_tries, error)
        time.sleep(_LOG_PAUSE_SECONDS)
    return logs or None


def _logs(client: skein.Client, app_id: str) -> Any:
    try:
        return client.application_logs(app_id)
    except Exception:
        # Skein knows where Hadoop before 3.3 kept them; YARN's own command knows it always.
        if shutil.which("yarn") is None:
            raise
    done = subprocess.run(["yarn", "logs", "-applicationId", app_id], capture_output=True, text=True)
    parts = _CONTAINER.split(done.stdout)
    if len(parts) == 1:
        raise ClusterPackError(f"yarn logs has none ({done.returncode}): {(done.stdout + done.stderr).strip()[-300:]}")
    found: Dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2]):
        found[name] = found.get(name, "") + text
    return _skein().model.ApplicationLogs(app_id, found)


def wait_for_finished(client: skein.Client, app_id: str, poll_every_secs: int = 5) -> bool:
    """Waits for an application's end. True: it succeeded."""
    _logger.info("waiting for %s", app_id)
    state = None
    while True:
        report = client.application_report(app_id)
        if state != report.state:
            _logger.info("%s: %s", app_id, _described(report))
        if str(report.final_status).lower() != "undefined":
            return str(report.final_status).lower() == "succeeded"
        state = report.state
        time.sleep(poll_every_secs)


def _described(report: skein.model.ApplicationReport) -> str:
    shown = ("state", "queue", "user", "start_time", "finish_time", "final_status", "tracking_url", "diagnostics")
    values = ((name, getattr(report, name, None)) for name in shown)
    return ", ".join(f"{name} {value}" for name, value in values if value)
