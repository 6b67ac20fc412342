"""Moving in from MLflow: from a server, a SQLite file, or an `mlruns` folder.

entities.py             what is read, whatever it is read from
source.py               what a source is asked for, and which one an address means
sqlite_source.py        MLflow's database, read as it is: no MLflow of the same version is needed
folder_source.py        an `mlruns` folder
server_source.py        a server, by MLflow's REST protocol
artifact_places.py      artifacts wherever their addresses lead
run_copy.py             experiments, runs and logged models into a workspace
registry_copy.py        registered models and their versions
verification.py         source and copy compared
migration.py            all of it, in order
"""
