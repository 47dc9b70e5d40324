"""What tools do that several environments offer: functions of a box and the tool's arguments."""
