# One interface package with all that lies in msg/ and action/; `used` lists the packages that it depends on.
find_package(ament_cmake REQUIRED)
# Nobody has sourced a ROS 2 setup file, so the prefix that ament_cmake was found in takes its place.
if(NOT DEFINED ENV{AMENT_PREFIX_PATH})
  get_filename_component(prefix "${ament_cmake_DIR}/../../.." ABSOLUTE)
  set(ENV{AMENT_PREFIX_PATH} "${prefix}")
endif()
find_package(rosidl_default_generators REQUIRED)
foreach(package IN LISTS used)
  find_package(${package} REQUIRED)
endforeach()

# The wheels' targets name include folders of the machine they were built on; CMake refuses folders that do not exist.
get_property(imported_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS imported_targets)
  get_target_property(include_folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(include_folders MATCHES "/opt/python/")
    list(FILTER include_folders EXCLUDE REGEX "^/opt/python/")
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${include_folders}")
  endif()
endforeach()

file(GLOB interfaces RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "msg/*.msg" "action/*.action")
rosidl_generate_interfaces(${PROJECT_NAME} ${interfaces} DEPENDENCIES ${used})
ament_package()
