package org.finetdeploy.core;

/** The version of finet-deploy that this code belongs to; a test of the Python side compares the two. */
public final class Version {
    /** As {@code finet_deploy.__version__}. */
    public static final String TOOL = "0.1.0";

    private Version() {}
}
