import java.io.BufferedReader;
import java.io.File;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.file.Files;
import java.security.PrivilegedExceptionAction;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.yarn.conf.YarnConfiguration;
import org.apache.hadoop.yarn.server.MiniYARNCluster;
import org.apache.hadoop.yarn.server.resourcemanager.scheduler.ResourceScheduler;
import org.apache.hadoop.yarn.server.resourcemanager.scheduler.capacity.CapacityScheduler;

/**
 * HDFS and YARN with two node managers in one process, for the tests: {@code MiniYarn DIRECTORY}.
 *
 * <p>Containers are real processes. Leaves {@code conf/} (a client's configuration) and {@code bin/yarn} in the directory,
 * prints READY, obeys commands on standard input (one a line, answered by OK) and ends when that ends.
 */
public class MiniYarn {
  private final File directory;
  private MiniDFSCluster hdfs;
  private MiniYARNCluster yarn;

  private MiniYarn(File directory) {
    this.directory = directory;
  }

  public static void main(String[] args) throws Exception {
    MiniYarn cluster = new MiniYarn(new File(args[0]));
    try {
      cluster.start();
      System.out.println("READY");
      BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
      while (commands.readLine() != null) {
        System.out.println("OK");
      }
      // Containers are stopped in order, so that none outlives the test.
      cluster.yarn.stop();
    } catch (Throwable failure) {
      failure.printStackTrace();
      Runtime.getRuntime().halt(1);
    }
    Runtime.getRuntime().halt(0);
  }

  private void start() throws Exception {
    String classpath = new File(directory, "conf").getPath() + "," + System.getProperty("jars") + "/*";
    YarnConfiguration conf = new YarnConfiguration();
    conf.set("hdfs.minidfs.basedir", new File(directory, "dfs").getPath());
    conf.set("dfs.namenode.fs-limits.min-block-size", "1048576");
    hdfs = new MiniDFSCluster.Builder(conf).numDataNodes(1).build();
    hdfs.waitActive();
    String address = "hdfs://localhost:" + hdfs.getNameNodePort();
    conf.set("fs.defaultFS", address);
    open(FileSystem.get(conf));

    // Its directories are relative to the working directory, else.
    System.setProperty("test.build.data", new File(directory, "yarn").getPath());
    conf.setClass(YarnConfiguration.RM_SCHEDULER, CapacityScheduler.class, ResourceScheduler.class);
    conf.set("yarn.scheduler.capacity.root.queues", "default");
    conf.set("yarn.scheduler.capacity.root.default.capacity", "100");
    conf.set("yarn.scheduler.capacity.maximum-am-resource-percent", "0.9");
    conf.setInt(YarnConfiguration.RM_SCHEDULER_MINIMUM_ALLOCATION_MB, 128);
    conf.setInt(YarnConfiguration.NM_PMEM_MB, 6144);
    conf.setInt(YarnConfiguration.NM_VCORES, 8);
    conf.setBoolean(YarnConfiguration.NM_VMEM_CHECK_ENABLED, false);
    conf.set(YarnConfiguration.NM_MAX_PER_DISK_UTILIZATION_PERCENTAGE, "99.5");
    conf.setBoolean(YarnConfiguration.LOG_AGGREGATION_ENABLED, true);
    conf.set(YarnConfiguration.NM_REMOTE_APP_LOG_DIR, "/logs");
    conf.set(YarnConfiguration.YARN_APPLICATION_CLASSPATH, classpath);
    conf.setBoolean(YarnConfiguration.TIMELINE_SERVICE_ENABLED, false);
    conf.setInt(YarnConfiguration.DEBUG_NM_DELETE_DELAY_SEC, 0);
    conf.setLong(YarnConfiguration.RM_AM_EXPIRY_INTERVAL_MS, 600_000);
    conf.setInt(YarnConfiguration.RM_NM_HEARTBEAT_INTERVAL_MS, 200);
    yarn = new MiniYARNCluster("yarn", 2, 1, 1);
    yarn.init(conf);
    yarn.start();
    client(address, classpath);
  }

  private static void open(FileSystem fs) throws Exception {
    String user = UserGroupInformation.getCurrentUser().getShortUserName();
    for (String path : new String[] {"/tmp", "/logs", "/user/" + user}) {
      fs.mkdirs(new Path(path));
      fs.setPermission(new Path(path), new FsPermission((short) 01777));
    }
  }

  /** What a client's machine would have. */
  private void client(String address, String classpath) throws Exception {
    File conf = new File(directory, "conf");
    conf.mkdirs();
    Configuration core = new Configuration(false);
    core.set("fs.defaultFS", address);
    write(core, new File(conf, "core-site.xml"));
    Configuration site = new Configuration(false);
    for (String name : new String[] {YarnConfiguration.RM_ADDRESS, YarnConfiguration.RM_SCHEDULER_ADDRESS,
        YarnConfiguration.RM_RESOURCE_TRACKER_ADDRESS, YarnConfiguration.RM_ADMIN_ADDRESS,
        YarnConfiguration.RM_WEBAPP_ADDRESS, YarnConfiguration.RM_SCHEDULER_MINIMUM_ALLOCATION_MB,
        YarnConfiguration.LOG_AGGREGATION_ENABLED, YarnConfiguration.NM_REMOTE_APP_LOG_DIR}) {
      site.set(name, yarn.getConfig().get(name));
    }
    site.set(YarnConfiguration.YARN_APPLICATION_CLASSPATH, classpath);
    write(site, new File(conf, "yarn-site.xml"));
    File command = new File(directory, "bin/yarn");
    command.getParentFile().mkdirs();
    String jars = System.getProperty("jars");
    String script = "#!/bin/sh\n# All that is asked of it.\ncase $1 in\nclasspath) echo '" + conf + ":" + glob(jars) + "' ;;\n"
        + "logs) shift; exec java -cp '" + conf + ":" + jars + "/*' org.apache.hadoop.yarn.client.cli.LogsCLI \"$@\" ;;\n"
        + "*) exit 1 ;;\nesac\n";
    Files.write(command.toPath(), script.getBytes());
    command.setExecutable(true);
  }

  private static String glob(String directory) {
    return String.join(":", java.util.Arrays.stream(new File(directory).listFiles()).map(File::getPath).toList());
  }

  private static void write(Configuration conf, File file) throws Exception {
    try (OutputStream out = new FileOutputStream(file)) {
      conf.writeXml(out);
    }
  }
}
