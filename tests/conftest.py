"""Speed is never tested by a clock: generated cases take the time they take."""

import hypothesis

hypothesis.settings.register_profile("finetop", deadline=None)
hypothesis.settings.load_profile("finetop")
