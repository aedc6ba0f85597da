"""`read_preferences` under the name that documentation gave it first; it lives in `reward_hub.data.preferences`."""

from reward_hub.data.preferences import read_preferences as read_preferences
