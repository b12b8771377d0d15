def markdown(figures, command):
    return ""
