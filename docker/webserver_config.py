"""Logins of Airflow's page: users with a password, kept in its database.

Read by Airflow's FAB auth manager.  A hospital's own directory (LDAP, OAuth) is set up here:
mount another file over /opt/airflow/webserver_config.py.
"""

from flask_appbuilder.const import AUTH_DB

AUTH_TYPE = AUTH_DB
AUTH_USER_REGISTRATION = False
AUTH_RATE_LIMITED = True
AUTH_RATE_LIMIT = "10 per 40 second"
RATELIMIT_STORAGE_URI = "memory://"
WTF_CSRF_ENABLED = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
