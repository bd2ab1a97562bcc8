/* One place for the version: the page reads it, and a change of it makes browsers install again. */
self.SPIRA_VERSION = "a3f1e189e1c2";
