/* One place for the version: the page reads it, and a change of it makes browsers install again. */
self.SPIRA_VERSION = "b7dbb3047786";
