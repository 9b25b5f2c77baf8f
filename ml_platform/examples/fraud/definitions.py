from ml_platform.components.project import project_definitions

defs = project_definitions("ml_platform.examples.fraud")
