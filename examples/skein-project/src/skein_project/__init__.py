"""A project that ships itself: installed as editable, it is sent as it is now with each submission.

    pip install --editable examples/skein-project
    HADOOP_CONF_DIR=/etc/hadoop/conf python -m skein_project
"""
