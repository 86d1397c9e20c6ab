c = get_config()  # noqa: F821
c.IPKernelApp.log_level = 40
c.HistoryManager.enabled = False
