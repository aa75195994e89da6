"""Event models: labelled clips in, bundles out. Needs the extra `train` (torch); `monitor` never imports it."""
